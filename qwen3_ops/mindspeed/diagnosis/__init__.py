"""Why a run failed: signatures as data, and the search for the one that came first."""
