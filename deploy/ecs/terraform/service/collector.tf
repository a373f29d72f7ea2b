# AWS Distro for OpenTelemetry beside hammerd, for who has a workspace of Amazon Managed Service for Prometheus and no Prometheus:
# scrapes hammerd over the task's loopback and writes to the workspace. It starts before hammerd and ends after it, so that the
# last counts arrive.

locals {
  scrape_seconds = max(1, var.shutdown_linger_seconds - 1)

  collector_config = var.adot == null ? "" : yamlencode({
    extensions = {
      health_check = {}
      sigv4auth    = { region = local.region, service = "aps" }
    }
    receivers = {
      prometheus = {
        config = {
          scrape_configs = [{
            job_name        = var.name
            scrape_interval = "${local.scrape_seconds}s"
            scrape_timeout  = "${min(10, local.scrape_seconds)}s"
            static_configs  = [{ targets = ["127.0.0.1:9955"] }]
          }]
        }
      }
    }
    processors = {
      # Every task's hammerd is at 127.0.0.1:9955: the task is what tells instances apart.
      resourcedetection = { detectors = ["env", "ecs"] }
      resource = {
        attributes = [{ key = "service.instance.id", from_attribute = "aws.ecs.task.arn", action = "upsert" }]
      }
    }
    exporters = {
      prometheusremotewrite = {
        endpoint = var.adot.remote_write_url
        auth     = { authenticator = "sigv4auth" }
      }
    }
    service = {
      extensions = ["health_check", "sigv4auth"]
      pipelines = {
        metrics = {
          receivers  = ["prometheus"]
          processors = ["resourcedetection", "resource"]
          exporters  = ["prometheusremotewrite"]
        }
      }
    }
  })

  collector = [for adot in var.adot == null ? [] : [var.adot] : {
    name        = "collector"
    image       = adot.image
    essential   = true
    stopTimeout = 30
    # Scrapes and sends, for which no capability is needed. A root that can't be written was not tried with it.
    linuxParameters = { capabilities = { drop = ["ALL"] } }
    environment     = [{ name = "AOT_CONFIG_CONTENT", value = local.collector_config }]
    healthCheck = {
      command     = ["CMD", "/healthcheck"]
      interval    = 10
      timeout     = 5
      retries     = 3
      startPeriod = 10
    }
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.hammerd.name
        awslogs-region        = local.region
        awslogs-stream-prefix = "collector"
        mode                  = "non-blocking"
        max-buffer-size       = "4m"
      }
    }
  }]
}
