"""Parts for ExpertFleet that live outside it: ``device`` and ``server``."""
