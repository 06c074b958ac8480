"""Events as records of another Kafka topic, in the worker's own cluster or in another one."""
