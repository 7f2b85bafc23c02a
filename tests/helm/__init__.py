"""The chart, rendered by Helm itself, without a cluster: what comes out is held against Kubernetes' own schemas,
against rules of this project's own, and against the settings and commands of the gateway that it starts.
"""
