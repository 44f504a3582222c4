"""Running MindSpeed-LLM: its commands are supervised, its logs read, its failures explained, its runs resumed."""
