"""What a benchmark times: the deployment, and other ways to answer the same images."""
