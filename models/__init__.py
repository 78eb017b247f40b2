"""The network, its bank of domain states, and the arithmetic of adaptation.

torch and numpy only: nothing here knows files, databases or requests.
"""
