variable "name" {
  description = "The service's name, and that of all that belongs to it."
  type        = string
  default     = "hammerd"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,25}$", var.name))
    error_message = "name is at most 26 lower-case letters, digits and hyphens, and begins with a letter."
  }
}

variable "image" {
  description = "The image that you built and pushed, with its tag or digest."
  type        = string
}

variable "ecr_repository_arn" {
  description = "The repository that the image is in, where that is ECR."
  type        = string
  default     = null
}

variable "cluster" {
  description = "The ECS cluster, by name or ARN. Its capacity providers include FARGATE, or FARGATE_SPOT with spot."
  type        = string
}

variable "vpc_id" {
  description = "The VPC of the subnets."
  type        = string
}

variable "subnet_ids" {
  description = "Where tasks run: private subnets with a NAT gateway or endpoints for ECR, CloudWatch Logs and SSM; or public ones with assign_public_ip."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) > 0
    error_message = "subnet_ids names at least one subnet."
  }
}

variable "assign_public_ip" {
  description = "Whether tasks have public addresses."
  type        = bool
  default     = false
}

variable "scrape_security_groups" {
  description = "Security groups that may scrape port 9955, each by a name of yours: { prometheus = \"sg-...\" }."
  type        = map(string)
  default     = {}
}

variable "egress_cidr_blocks" {
  description = "Where tasks may send to: targets, name servers, the registry, CloudWatch and SSM."
  type        = list(string)
  default     = ["0.0.0.0/0"]
}

variable "config" {
  description = "The text of hammerd.toml, at most 8 KiB; it goes into an SSM parameter. Or config_arn."
  type        = string
  default     = null
}

variable "config_arn" {
  description = "An SSM parameter or a secret of yours that holds hammerd.toml. Or config."
  type        = string
  default     = null
}

variable "config_revision" {
  description = "With config_arn: anything that you change together with its content, so that new tasks start."
  type        = string
  default     = ""
}

variable "environment" {
  description = "Variables for $${NAME} in the configuration."
  type        = map(string)
  default     = {}
}

variable "secrets" {
  description = "Variables whose values are SSM parameters or secrets, by ARN."
  type        = map(string)
  default     = {}
}

variable "kms_key_arn" {
  description = "The key that encrypts configuration and secrets, where it is one of yours."
  type        = string
  default     = null
}

variable "cpu" {
  description = "CPU units of the task: 256 carry some thousand requests a second."
  type        = number
  default     = 256
}

variable "memory" {
  description = "MiB of the task."
  type        = number
  default     = 512
}

variable "cpu_architecture" {
  description = "What the image was built for: X86_64 or ARM64."
  type        = string
  default     = "X86_64"

  validation {
    condition     = contains(["X86_64", "ARM64"], var.cpu_architecture)
    error_message = "cpu_architecture is X86_64 or ARM64."
  }
}

variable "spot" {
  description = "Whether to run on spare capacity, which is cheaper and is taken away now and then, with two minutes' notice."
  type        = bool
  default     = false
}

variable "desired_count" {
  description = "How many tasks."
  type        = number
  default     = 1

  validation {
    condition     = var.desired_count >= 1
    error_message = "desired_count is at least 1."
  }
}

variable "share_stream" {
  description = "Whether the tasks are together one even stream instead of each sending the whole rate."
  type        = bool
  default     = false
}

variable "discovery" {
  description = "A private DNS namespace of Cloud Map, in which tasks are found as NAME.NAMESPACE."
  type        = object({ namespace_id = string, namespace_name = string })
  default     = null
}

variable "rollout" {
  description = "no_overlap: no traffic while a task is replaced. no_gap: both at once for as long as a task takes to start."
  type        = string
  default     = "no_overlap"

  validation {
    condition     = contains(["no_overlap", "no_gap"], var.rollout)
    error_message = "rollout is no_overlap or no_gap."
  }
}

variable "shutdown_grace_seconds" {
  description = "How long requests in flight may take at the end; not less than the largest timeout of a target."
  type        = number
  default     = 10
}

variable "shutdown_linger_seconds" {
  description = "How long /metrics waits for one more scrape at the end; one scrape interval and a bit."
  type        = number
  default     = 16
}

variable "log_retention_days" {
  description = "How long CloudWatch keeps the log."
  type        = number
  default     = 30
}

variable "adot" {
  description = "AWS Distro for OpenTelemetry beside hammerd: its image, and the workspace that it writes to."
  type        = object({ image = string, remote_write_url = string, workspace_arn = string })
  default     = null

  validation {
    condition     = var.adot == null ? true : startswith(var.adot.remote_write_url, "https://")
    error_message = "adot.remote_write_url is https://aps-workspaces.REGION.amazonaws.com/workspaces/ID/api/v1/remote_write."
  }
}

variable "tags" {
  description = "Tags of everything."
  type        = map(string)
  default     = {}
}
