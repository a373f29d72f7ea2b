# hammerd as one container of a task: its definition, and what the task's execution role has to be allowed for it. Makes nothing
# itself, so it fits beside an application in a task definition of yours (../examples/sidecar), and is what ../service is made of.

terraform {
  required_version = ">= 1.5"
}

locals {
  # ECS kills at stop_timeout: after what hammerd itself takes, and some seconds to spare.
  stop_timeout = var.shutdown_grace_seconds + var.shutdown_linger_seconds + 4

  environment = merge(var.environment, {
    HAMMERD__SERVER__LISTEN   = "0.0.0.0:${var.port}"
    HAMMERD__SHUTDOWN__GRACE  = "${var.shutdown_grace_seconds}s"
    HAMMERD__SHUTDOWN__LINGER = "${var.shutdown_linger_seconds}s"
  })

  secrets = merge(var.secrets, { HAMMERD_CONFIG_INLINE = var.config_arn })

  # A secret may be named with a key, a stage or a version behind its ARN; rights are for the secret.
  secret_arns    = distinct([for arn in values(local.secrets) : join(":", slice(split(":", arn), 0, 7)) if strcontains(arn, ":secretsmanager:")])
  parameter_arns = distinct([for arn in values(local.secrets) : arn if strcontains(arn, ":ssm:")])

  definition = merge(
    {
      name                   = var.name
      image                  = var.image
      essential              = var.essential
      command                = ["--log-format", "json"]
      user                   = "65532:65532"
      readonlyRootFilesystem = true
      linuxParameters        = { capabilities = { drop = ["ALL"] } }
      stopTimeout            = local.stop_timeout
      portMappings           = [{ containerPort = var.port, hostPort = var.port, protocol = "tcp" }]
      ulimits                = [{ name = "nofile", softLimit = 65536, hardLimit = 65536 }]
      environment            = [for name, value in local.environment : { name = name, value = value }]
      secrets                = [for name, arn in local.secrets : { name = name, valueFrom = arn }]
      # The digest makes a changed configuration a new revision, since a task reads it when it starts and never again.
      dockerLabels = { "hammerd.config" = var.config_digest }
      healthCheck = {
        command     = ["CMD", "/hammerd", "health"]
        interval    = 10
        timeout     = 5
        retries     = 3
        startPeriod = 10
      }
      logConfiguration = {
        logDriver = "awslogs"
        options = {
          awslogs-group         = var.log_group
          awslogs-region        = var.region
          awslogs-stream-prefix = var.name
          mode                  = "non-blocking"
          max-buffer-size       = "4m"
        }
      }
      dependsOn = concat(
        [for container in var.wait_for_healthy : { containerName = container, condition = "HEALTHY" }],
        [for container in var.wait_for_start : { containerName = container, condition = "START" }],
      )
    },
    # What an application does not miss is started again by itself.
    var.essential ? {} : { restartPolicy = { enabled = true } },
    var.memory == null ? {} : { memory = var.memory },
  )

  execution_statements = concat(
    length(local.parameter_arns) == 0 ? [] : [{
      Sid      = "Parameters"
      Effect   = "Allow"
      Action   = ["ssm:GetParameters"]
      Resource = local.parameter_arns
    }],
    length(local.secret_arns) == 0 ? [] : [{
      Sid      = "Secrets"
      Effect   = "Allow"
      Action   = ["secretsmanager:GetSecretValue"]
      Resource = local.secret_arns
    }],
    var.kms_key_arn == null ? [] : [{
      Sid      = "Key"
      Effect   = "Allow"
      Action   = ["kms:Decrypt"]
      Resource = [var.kms_key_arn]
    }],
    var.ecr_repository_arn == null ? [] : [
      {
        Sid      = "Token"
        Effect   = "Allow"
        Action   = ["ecr:GetAuthorizationToken"]
        Resource = ["*"]
      },
      {
        Sid      = "Pull"
        Effect   = "Allow"
        Action   = ["ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer", "ecr:BatchGetImage"]
        Resource = [var.ecr_repository_arn]
      },
    ],
  )
}
