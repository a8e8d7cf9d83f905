"""What can be learnt from the models: the paper's analyses (§5), each a command with a results file and a picture."""
