# terraform init && terraform test

mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { name = "eu-central-1" }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_resource "aws_ssm_parameter" {
    defaults = { arn = "arn:aws:ssm:eu-central-1:123456789012:parameter/hammerd/hammerd.toml" }
  }
  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:eu-central-1:123456789012:log-group:/ecs/hammerd" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/hammerd" }
  }
  mock_resource "aws_ecs_task_definition" {
    defaults = { arn = "arn:aws:ecs:eu-central-1:123456789012:task-definition/hammerd:1" }
  }
  mock_resource "aws_service_discovery_service" {
    defaults = { arn = "arn:aws:servicediscovery:eu-central-1:123456789012:service/srv-1" }
  }
}

variables {
  image                  = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/hammerd:0.1.0"
  ecr_repository_arn     = "arn:aws:ecr:eu-central-1:123456789012:repository/hammerd"
  cluster                = "tools"
  vpc_id                 = "vpc-1"
  subnet_ids             = ["subnet-1", "subnet-2"]
  scrape_security_groups = { prometheus = "sg-1" }
  config                 = "[targets.demo]\nurl = \"http://demo.example/\"\nrate = \"10/s\"\n"
}

run "one_task_that_never_overlaps" {
  assert {
    condition     = aws_ecs_service.hammerd.deployment_minimum_healthy_percent == 0 && aws_ecs_service.hammerd.deployment_maximum_percent == 100
    error_message = "the old task ends first"
  }
  assert {
    condition     = one(aws_ecs_service.hammerd.capacity_provider_strategy).capacity_provider == "FARGATE"
    error_message = "on demand"
  }
  assert {
    condition     = aws_ssm_parameter.config[0].type == "SecureString" && aws_ssm_parameter.config[0].tier == "Standard"
    error_message = "the configuration is encrypted"
  }
}

run "roles_may_do_what_they_have_to" {
  assert {
    condition = toset(flatten([for statement in jsondecode(aws_iam_role_policy.execution.policy).Statement : statement.Action])) == toset([
      "ssm:GetParameters", "logs:CreateLogStream", "logs:PutLogEvents",
      "ecr:GetAuthorizationToken", "ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer", "ecr:BatchGetImage",
    ])
    error_message = "the execution role pulls the image, reads the configuration and writes the log"
  }
  assert {
    condition     = alltrue([for statement in jsondecode(aws_iam_role_policy.execution.policy).Statement : !contains(statement.Resource, "*") || statement.Action == ["ecr:GetAuthorizationToken"]])
    error_message = "of this service only"
  }
  assert {
    condition     = length(aws_iam_role_policy.remote_write) == 0
    error_message = "the task role may do nothing"
  }
}

run "an_image_in_ecr_needs_its_repository" {
  command = plan
  variables {
    ecr_repository_arn = null
  }
  expect_failures = [aws_ecs_service.hammerd]
}

run "an_image_elsewhere_needs_none" {
  variables {
    image              = "registry.example/tools/hammerd:0.1.0"
    ecr_repository_arn = null
  }
  assert {
    condition     = !strcontains(aws_iam_role_policy.execution.policy, "ecr:")
    error_message = "the execution role has no right on ECR"
  }
}

run "only_prometheus_comes_in" {
  assert {
    condition     = [for rule in aws_vpc_security_group_ingress_rule.scrape : "${rule.referenced_security_group_id} ${rule.from_port}-${rule.to_port} ${rule.ip_protocol}"] == ["sg-1 9955-9955 tcp"]
    error_message = "the scrape port, from the group that was given"
  }
}

run "a_changed_configuration_is_a_new_revision" {
  variables {
    config = "[targets.demo]\nurl = \"http://demo.example/\"\nrate = \"20/s\"\n"
  }
  assert {
    condition     = jsondecode(aws_ecs_task_definition.hammerd.container_definitions)[0].dockerLabels["hammerd.config"] == sha256(var.config)
    error_message = "its digest is part of the definition"
  }
}

run "a_long_configuration_is_an_advanced_parameter" {
  variables {
    config = join("", [for i in range(500) : "# ${i}.......\n"])
  }
  assert {
    condition     = aws_ssm_parameter.config[0].tier == "Advanced"
    error_message = "more than 4 KiB"
  }
}

run "too_long_a_configuration_is_refused" {
  command = plan
  variables {
    config = join("", [for i in range(800) : "# ${i}.......\n"])
  }
  expect_failures = [aws_ssm_parameter.config]
}

run "tasks_that_share_a_stream_find_each_other" {
  variables {
    desired_count = 3
    share_stream  = true
    discovery     = { namespace_id = "ns-1", namespace_name = "tools.internal" }
    spot          = true
  }
  assert {
    condition     = { for each in jsondecode(aws_ecs_task_definition.hammerd.container_definitions)[0].environment : each.name => each.value }["HAMMERD__SHARD__MEMBERS"] == "hammerd.tools.internal"
    error_message = "by name"
  }
  assert {
    condition     = aws_ecs_service.hammerd.deployment_minimum_healthy_percent == 66
    error_message = "one at a time"
  }
  assert {
    condition     = output.scrape_name == "hammerd.tools.internal"
    error_message = "Prometheus finds them by the same name"
  }
  assert {
    condition     = one(aws_ecs_service.hammerd.capacity_provider_strategy).capacity_provider == "FARGATE_SPOT"
    error_message = "spare capacity"
  }
}

run "tasks_that_would_multiply_the_rate_are_refused" {
  command = plan
  variables {
    desired_count = 2
  }
  expect_failures = [aws_ecs_service.hammerd]
}

run "sharing_needs_discovery" {
  command = plan
  variables {
    desired_count = 2
    share_stream  = true
    discovery     = null
  }
  expect_failures = [aws_ecs_service.hammerd]
}

run "more_tasks_than_a_name_lists_are_refused" {
  command = plan
  variables {
    desired_count = 9
    share_stream  = true
    discovery     = { namespace_id = "ns-1", namespace_name = "tools.internal" }
  }
  expect_failures = [aws_ecs_service.hammerd]
}

run "one_configuration_not_two" {
  command = plan
  variables {
    config_arn = "arn:aws:ssm:eu-central-1:123456789012:parameter/other"
  }
  expect_failures = [aws_ecs_service.hammerd]
}

run "no_gap_when_asked" {
  variables {
    rollout = "no_gap"
  }
  assert {
    condition     = aws_ecs_service.hammerd.deployment_minimum_healthy_percent == 100 && aws_ecs_service.hammerd.deployment_maximum_percent == 200
    error_message = "the new task starts first"
  }
}

run "arm" {
  variables {
    cpu_architecture = "ARM64"
  }
  assert {
    condition     = one(aws_ecs_task_definition.hammerd.runtime_platform).cpu_architecture == "ARM64"
    error_message = "on Graviton"
  }
}

run "a_collector_starts_before_and_ends_after" {
  variables {
    adot = {
      image            = "public.ecr.aws/aws-observability/aws-otel-collector:v0.43.3"
      remote_write_url = "https://aps-workspaces.eu-central-1.amazonaws.com/workspaces/ws-1/api/v1/remote_write"
      workspace_arn    = "arn:aws:aps:eu-central-1:123456789012:workspace/ws-1"
    }
  }
  assert {
    condition     = jsonencode(jsondecode(aws_ecs_task_definition.hammerd.container_definitions)[0].dependsOn) == jsonencode([{ condition = "START", containerName = "collector" }])
    error_message = "hammerd depends on it"
  }
  assert {
    condition     = jsondecode(aws_iam_role_policy.remote_write[0].policy).Statement == [{ Action = ["aps:RemoteWrite"], Effect = "Allow", Resource = ["arn:aws:aps:eu-central-1:123456789012:workspace/ws-1"] }]
    error_message = "writes to its workspace and does nothing else"
  }
  assert {
    condition     = alltrue([for container in jsondecode(aws_ecs_task_definition.hammerd.container_definitions) : container.linuxParameters.capabilities.drop == ["ALL"]])
    error_message = "no container has capabilities"
  }
  assert {
    condition     = yamldecode(jsondecode(aws_ecs_task_definition.hammerd.container_definitions)[1].environment[0].value).receivers.prometheus.config.scrape_configs[0].scrape_interval == "15s"
    error_message = "scrapes more often than hammerd lingers"
  }
}

run "an_unknown_architecture_is_refused" {
  command = plan
  variables {
    cpu_architecture = "arm64"
  }
  expect_failures = [var.cpu_architecture]
}
