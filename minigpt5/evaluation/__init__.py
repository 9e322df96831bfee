"""What the programs of `evaluation/` share: questions from data sets, replies kept on disk, figures and reports.

A system (`systems`) is asked items (`items`); its replies are kept one by one in a folder (`replies`), so that what is
there is not made again; figures are taken of the folder (`figures`) and written down (`report`).
"""
