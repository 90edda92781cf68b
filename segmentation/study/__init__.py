"""Studies: many models trained under one protocol, their scores in one table, and what follows from them.

`plan` says what is trained, `run` trains and scores it. `records` are the rows that are written down and
`results_file` their CSVs; `study_results` chooses what stands in which comparison, `statistics` makes means,
paired differences and their power. `methods_table`, `paper_tables` and `further_tables` are the tables, `figures`
the figures, `missing` names what was not scored, `conclusions` says what held, and `report` puts it all into one
folder.
"""
