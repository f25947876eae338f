"""The paper's tables as lists of runs: trained, evaluated, compared."""
