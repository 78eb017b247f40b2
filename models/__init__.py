"""The network, its bank of domain states, and the arithmetic of adaptation.

torch and numpy only: nothing here knows databases or requests, and of files only
those that hold a backbone or a state.
"""
