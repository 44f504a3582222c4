"""For Airflow's SQLite database in tests: a busy machine makes its parts wait for each other, not fail."""

CONNECT_ARGS = {"timeout": 120}
