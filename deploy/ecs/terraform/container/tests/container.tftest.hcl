# terraform init && terraform test

variables {
  image      = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/hammerd:0.1.0"
  config_arn = "arn:aws:ssm:eu-central-1:123456789012:parameter/hammerd/hammerd.toml"
  log_group  = "/ecs/hammerd"
  region     = "eu-central-1"
}

run "may_do_nothing_but_send" {
  command = plan

  assert {
    condition     = output.definition.user == "65532:65532" && output.definition.readonlyRootFilesystem && output.definition.linuxParameters.capabilities.drop == ["ALL"]
    error_message = "not root, nothing to write to, no capabilities"
  }
  assert {
    condition     = output.definition.healthCheck.command == ["CMD", "/hammerd", "health"]
    error_message = "hammerd is asked how it is"
  }
  assert {
    condition     = [for secret in output.definition.secrets : secret.name] == ["HAMMERD_CONFIG_INLINE"]
    error_message = "the configuration is a secret"
  }
  assert {
    condition     = jsonencode(output.execution_statements) == jsonencode([{ Sid = "Parameters", Effect = "Allow", Action = ["ssm:GetParameters"], Resource = [var.config_arn] }])
    error_message = "the execution role may read this parameter and nothing else"
  }
}

run "has_time_to_end" {
  command = plan

  variables {
    shutdown_grace_seconds  = 30
    shutdown_linger_seconds = 61
  }
  assert {
    condition     = output.definition.stopTimeout == 95
    error_message = "grace, linger and four seconds"
  }
  assert {
    condition     = { for each in output.definition.environment : each.name => each.value }["HAMMERD__SHUTDOWN__LINGER"] == "61s"
    error_message = "hammerd is told the same"
  }
}

run "more_time_than_fargate_gives_is_refused" {
  command = plan

  variables {
    shutdown_grace_seconds  = 60
    shutdown_linger_seconds = 61
  }
  expect_failures = [output.definition]
}

run "a_secret_with_a_key_needs_rights_for_the_secret" {
  command = plan

  variables {
    config_arn  = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:hammerd-AbCdEf:toml::"
    secrets     = { TOKEN = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:token-AbCdEf" }
    kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/1"
  }
  assert {
    condition     = [for statement in output.execution_statements : statement.Action[0]] == ["secretsmanager:GetSecretValue", "kms:Decrypt"]
    error_message = "secrets and the key"
  }
  assert {
    condition     = toset(output.execution_statements[0].Resource) == toset(["arn:aws:secretsmanager:eu-central-1:123456789012:secret:hammerd-AbCdEf", "arn:aws:secretsmanager:eu-central-1:123456789012:secret:token-AbCdEf"])
    error_message = "without the key's name"
  }
}

run "a_sidecar_waits_and_is_not_missed" {
  command = plan

  variables {
    essential        = false
    wait_for_healthy = ["app"]
  }
  assert {
    condition     = jsonencode(output.definition.dependsOn) == jsonencode([{ condition = "HEALTHY", containerName = "app" }])
    error_message = "waits for the application"
  }
  assert {
    condition     = output.definition.restartPolicy.enabled && !output.definition.essential
    error_message = "is started again by itself"
  }
}

run "what_is_no_arn_is_refused" {
  command = plan

  variables {
    config_arn = "hammerd.toml"
  }
  expect_failures = [var.config_arn]
}

run "an_image_without_a_tag_is_refused" {
  command = plan

  variables {
    image = "hammerd"
  }
  expect_failures = [var.image]
}
