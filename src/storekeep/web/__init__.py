"""The way in over HTTP: webhooks of web shops, and batches that others push."""
