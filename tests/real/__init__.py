"""Tests of the real models; a package, so that its fixtures end with it and not with the session."""
