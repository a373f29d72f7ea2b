# One Fargate service that runs hammerd, with roles that may do nothing else, its log group and its security group.

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.80"
    }
  }
}

data "aws_region" "current" {}
data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}

locals {
  region  = data.aws_region.current.name
  account = data.aws_caller_identity.current.account_id

  config_bytes = var.config == null ? 0 : length(base64encode(var.config)) / 4 * 3
  config_arn   = var.config == null ? var.config_arn : aws_ssm_parameter.config[0].arn
  # Of the parameter's value, not of a variable: a new revision is made after the parameter has changed.
  config_digest = var.config == null ? var.config_revision : sha256(nonsensitive(aws_ssm_parameter.config[0].value))

  shard = !var.share_stream || var.discovery == null ? {} : {
    HAMMERD__SHARD__MEMBERS = "${var.name}.${var.discovery.namespace_name}"
  }
}

module "container" {
  source = "../container"

  image                   = var.image
  ecr_repository_arn      = var.ecr_repository_arn
  config_arn              = local.config_arn
  config_digest           = local.config_digest
  environment             = merge(var.environment, local.shard)
  secrets                 = var.secrets
  kms_key_arn             = var.kms_key_arn
  log_group               = aws_cloudwatch_log_group.hammerd.name
  region                  = local.region
  shutdown_grace_seconds  = var.shutdown_grace_seconds
  shutdown_linger_seconds = var.shutdown_linger_seconds
  wait_for_start          = var.adot == null ? [] : ["collector"]
}

resource "aws_ssm_parameter" "config" {
  count = var.config == null ? 0 : 1

  name        = "/${var.name}/hammerd.toml"
  description = "hammerd's configuration"
  type        = "SecureString"
  key_id      = var.kms_key_arn
  tier        = local.config_bytes > 4096 ? "Advanced" : "Standard"
  value       = var.config
  tags        = var.tags

  lifecycle {
    precondition {
      condition     = local.config_bytes <= 8192
      error_message = "config has more than the 8 KiB of an SSM parameter: put it into a secret and give its ARN as config_arn."
    }
  }
}

resource "aws_cloudwatch_log_group" "hammerd" {
  name              = "/ecs/${var.name}"
  retention_in_days = var.log_retention_days
  tags              = var.tags
}

resource "aws_ecs_task_definition" "hammerd" {
  family                   = var.name
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.cpu
  memory                   = var.memory
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.task.arn
  container_definitions    = jsonencode(concat([module.container.definition], local.collector))
  tags                     = var.tags

  # The revision before stays, for the circuit breaker to go back to.
  skip_destroy = true

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.cpu_architecture
  }
}

resource "aws_ecs_service" "hammerd" {
  name            = var.name
  cluster         = var.cluster
  task_definition = aws_ecs_task_definition.hammerd.arn
  desired_count   = var.desired_count
  propagate_tags  = "SERVICE"
  tags            = var.tags

  # no_overlap: an old task ends before the new one starts, so that the target never gets the rate twice; of several tasks one at
  # a time. no_gap: the new one starts first.
  deployment_minimum_healthy_percent = var.rollout == "no_gap" ? 100 : floor(100 * (var.desired_count - 1) / var.desired_count)
  deployment_maximum_percent         = var.rollout == "no_gap" ? 200 : 100
  availability_zone_rebalancing      = "DISABLED"

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  capacity_provider_strategy {
    capacity_provider = var.spot ? "FARGATE_SPOT" : "FARGATE"
    weight            = 1
  }

  network_configuration {
    subnets          = var.subnet_ids
    security_groups  = [aws_security_group.hammerd.id]
    assign_public_ip = var.assign_public_ip
  }

  dynamic "service_registries" {
    for_each = aws_service_discovery_service.hammerd
    content {
      registry_arn = service_registries.value.arn
    }
  }

  lifecycle {
    precondition {
      condition     = (var.config == null) != (var.config_arn == null)
      error_message = "Give either config, the text of hammerd.toml, or config_arn, the parameter or secret that holds it."
    }
    precondition {
      condition     = var.ecr_repository_arn != null || !can(regex("[.]dkr[.-]ecr[.]", var.image))
      error_message = "The image is in ECR, and tasks could not pull it: give its repository's ARN as ecr_repository_arn."
    }
    precondition {
      condition     = var.desired_count == 1 || var.share_stream
      error_message = "Each task would send the whole rate: set share_stream (and discovery), or make a service for each stream."
    }
    precondition {
      condition     = !var.share_stream || var.discovery != null
      error_message = "share_stream needs discovery: tasks find each other by DNS."
    }
    precondition {
      condition     = var.desired_count <= 8
      error_message = "At most 8 tasks share a stream: Cloud Map answers with 8 records, and tasks that see different ones would send too much."
    }
  }

  # A task that starts before its role may read the configuration fails.
  depends_on = [aws_iam_role_policy.execution]
}

# Tasks by name, NAME.NAMESPACE: for Prometheus (dns_sd_configs), and for tasks that share one stream.
resource "aws_service_discovery_service" "hammerd" {
  count = var.discovery == null ? 0 : 1

  name = var.name
  tags = var.tags

  dns_config {
    namespace_id   = var.discovery.namespace_id
    routing_policy = "MULTIVALUE"
    dns_records {
      type = "A"
      ttl  = 10
    }
  }

  health_check_custom_config {
    failure_threshold = 1
  }
}
