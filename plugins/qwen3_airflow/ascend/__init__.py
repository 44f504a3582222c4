"""The Ascend host: what its containers get, how its Docker Engine is reached, which NPUs are free."""
