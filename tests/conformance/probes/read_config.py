"""Reads config.pbtxt files with Triton's own message, strictly: an unknown field is an error."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

found = []
for name in sys.argv[1:]:
    config = model_config_pb2.ModelConfig()
    text_format.Parse(Path(name).read_text(encoding="utf-8"), config)
    found.append(json_format.MessageToDict(config, preserving_proto_field_name=True))
json.dump(found, sys.stdout)
