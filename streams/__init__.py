"""Facts become answers: events to read models and archival tiers."""
