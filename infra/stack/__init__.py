"""The local stack: Kafka, Cassandra, SeaweedFS and Sijil's own processes as children of one supervisor."""
