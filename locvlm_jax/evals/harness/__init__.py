"""Our tasks and our models in lmms-eval, which compares many."""
