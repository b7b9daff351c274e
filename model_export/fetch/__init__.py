"""Fetches a recipe's source: finds or downloads its files, then loads them with transformers."""
