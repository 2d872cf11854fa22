"""Runs the command line: `python -m otel_mlmon` equals `otel-mlmon`."""

from otel_mlmon.cli import main

raise SystemExit(main())
