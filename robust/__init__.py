"""The science: attacks, objectives, models, certificates, detection and the ledger they all write.

Knows no Prefect, no MLflow and no command line, so that a researcher can use it alone.
"""
