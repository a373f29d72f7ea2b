variable "name" {
  description = "The container's name."
  type        = string
  default     = "hammerd"
}

variable "image" {
  description = "The image that you built and pushed, with its tag or digest."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-zA-Z0-9._/:@-]*[:@][A-Za-z0-9._:-]+$", var.image))
    error_message = "image is a name with a tag or a digest, such as 123456789012.dkr.ecr.eu-central-1.amazonaws.com/hammerd:0.1.0."
  }
}

variable "ecr_repository_arn" {
  description = "The repository that the image is in, where that is ECR; null where it is not, or where the role may pull already."
  type        = string
  default     = null
}

variable "config_arn" {
  description = "The SSM parameter or the secret whose value is hammerd.toml."
  type        = string

  validation {
    condition     = can(regex("^arn:[a-z-]+:ssm:[a-z0-9-]+:[0-9]{12}:parameter/.+$", var.config_arn)) || can(regex("^arn:[a-z-]+:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:.+$", var.config_arn))
    error_message = "config_arn is the ARN of an SSM parameter (arn:aws:ssm:REGION:ACCOUNT:parameter/NAME) or of a secret (arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME)."
  }
}

variable "config_digest" {
  description = "Anything that changes with the configuration, so that a change starts new tasks."
  type        = string
  default     = ""
}

variable "environment" {
  description = "Variables for $${NAME} in the configuration. What hammerd needs for this place is set already."
  type        = map(string)
  default     = {}
}

variable "secrets" {
  description = "Variables whose values are SSM parameters or secrets, by ARN."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for arn in values(var.secrets) : can(regex("^arn:[a-z-]+:(ssm|secretsmanager):", arn))])
    error_message = "secrets maps names of variables to ARNs of SSM parameters or secrets."
  }
}

variable "kms_key_arn" {
  description = "The key that encrypts them, where it is one of yours."
  type        = string
  default     = null
}

variable "log_group" {
  description = "The CloudWatch log group."
  type        = string
}

variable "region" {
  description = "The log group's region."
  type        = string
}

variable "port" {
  description = "Where /metrics and the status page are served."
  type        = number
  default     = 9955
}

variable "memory" {
  description = "MiB at which this container is killed; null: the task's."
  type        = number
  default     = null
}

variable "essential" {
  description = "Whether the task ends with this container. A sidecar's is false."
  type        = bool
  default     = true
}

variable "wait_for_healthy" {
  description = "Containers that have to be healthy before hammerd starts, and that end after it."
  type        = list(string)
  default     = []
}

variable "wait_for_start" {
  description = "Containers that have to be started before hammerd, and that end after it."
  type        = list(string)
  default     = []
}

variable "shutdown_grace_seconds" {
  description = "How long requests in flight may take at the end; not less than the largest timeout of a target."
  type        = number
  default     = 10

  validation {
    condition     = var.shutdown_grace_seconds >= 0 && floor(var.shutdown_grace_seconds) == var.shutdown_grace_seconds
    error_message = "shutdown_grace_seconds is a whole number of seconds."
  }
}

variable "shutdown_linger_seconds" {
  description = "How long /metrics waits for one more scrape at the end; one scrape interval and a bit."
  type        = number
  default     = 16

  validation {
    condition     = var.shutdown_linger_seconds >= 0 && floor(var.shutdown_linger_seconds) == var.shutdown_linger_seconds
    error_message = "shutdown_linger_seconds is a whole number of seconds."
  }
}
