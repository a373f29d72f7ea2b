output "definition" {
  description = "For container_definitions of a task definition: jsonencode([module.hammerd.definition, ...])."
  value       = local.definition

  precondition {
    condition     = local.stop_timeout <= 120
    error_message = "shutdown_grace_seconds + shutdown_linger_seconds is at most 116: Fargate kills a task 120 s after SIGTERM."
  }
}

output "execution_statements" {
  description = "What the execution role is allowed for this container: its configuration and secrets, and its image where ecr_repository_arn is given."
  value       = local.execution_statements
}
