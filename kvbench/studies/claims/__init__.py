"""The article's claims, each measured by every definition that its words allow."""
