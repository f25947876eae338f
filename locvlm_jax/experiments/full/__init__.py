"""The paper's tables with the models and data of the paper."""
