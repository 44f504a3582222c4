"""How Airflow launches the stages of ``qwen3_ops``, waits for them and shows them."""
