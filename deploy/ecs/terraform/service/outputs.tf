output "service" {
  description = "The service's name in its cluster."
  value       = aws_ecs_service.hammerd.name
}

output "task_definition_arn" {
  description = "The revision that runs."
  value       = aws_ecs_task_definition.hammerd.arn
}

output "task_role_name" {
  description = "hammerd's own role, to allow it more: reading its configuration from S3, say."
  value       = aws_iam_role.task.name
}

output "security_group_id" {
  description = "Allow this group at your targets."
  value       = aws_security_group.hammerd.id
}

output "log_group" {
  description = "Where its log is."
  value       = aws_cloudwatch_log_group.hammerd.name
}

output "scrape_name" {
  description = "For dns_sd_configs of a Prometheus in the VPC; null without discovery."
  value       = var.discovery == null ? null : "${var.name}.${var.discovery.namespace_name}"
}
