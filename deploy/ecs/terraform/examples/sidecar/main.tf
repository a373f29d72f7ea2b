# hammerd beside an application in one task. `app` stands for yours: what counts is module.hammerd, its definition in
# container_definitions, and its statements in the execution role's policy.
#
# hammerd starts when the application is healthy, and ends before it: neither its start nor its end shows as failures. Should
# hammerd itself end, the application goes on, and ECS starts hammerd again.

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.80"
    }
  }
}

variable "image" {
  type = string
}

# Of the repository that the image is in; leave it out where that is not ECR.
variable "ecr_repository_arn" {
  type    = string
  default = null
}

data "aws_region" "current" {}

module "hammerd" {
  source = "../../container"

  image              = var.image
  ecr_repository_arn = var.ecr_repository_arn
  config_arn         = aws_ssm_parameter.config.arn
  config_digest      = sha256(nonsensitive(aws_ssm_parameter.config.value))
  log_group          = aws_cloudwatch_log_group.web.name
  region             = data.aws_region.current.name
  essential          = false
  memory             = 64
  wait_for_healthy   = ["app"]
}

resource "aws_ssm_parameter" "config" {
  name  = "/web/hammerd.toml"
  type  = "SecureString"
  value = file("${path.module}/hammerd.toml")
}

resource "aws_ecs_task_definition" "web" {
  family                   = "web"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = 256
  memory                   = 512
  execution_role_arn       = aws_iam_role.execution.arn

  container_definitions = jsonencode([module.hammerd.definition, {
    name         = "app"
    image        = "public.ecr.aws/nginx/nginx:1.27-alpine"
    essential    = true
    stopTimeout  = 30
    portMappings = [{ containerPort = 80, hostPort = 80, protocol = "tcp" }]
    healthCheck = {
      command     = ["CMD-SHELL", "wget -q -O /dev/null http://127.0.0.1/"]
      interval    = 5
      timeout     = 5
      retries     = 3
      startPeriod = 10
    }
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.web.name
        awslogs-region        = data.aws_region.current.name
        awslogs-stream-prefix = "app"
      }
    }
  }])
}

resource "aws_cloudwatch_log_group" "web" {
  name              = "/ecs/web"
  retention_in_days = 30
}

resource "aws_iam_role" "execution" {
  name_prefix = "web-execution-"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ecs-tasks.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_role_policy" "execution" {
  name = "start"
  role = aws_iam_role.execution.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(module.hammerd.execution_statements, [{
      Sid      = "Log"
      Effect   = "Allow"
      Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
      Resource = ["${aws_cloudwatch_log_group.web.arn}:*"]
    }])
  })
}

output "task_definition_arn" {
  value = aws_ecs_task_definition.web.arn
}
