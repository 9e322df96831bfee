"""What `evaluation/reproduce_claims.py` is built from: other numbers of vokens, figures, verdicts and their report."""
