"""What caches cost a real model in quality, and what they save in memory."""
