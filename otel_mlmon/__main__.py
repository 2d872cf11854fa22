"""`python -m otel_mlmon` is `otel-mlmon`."""

from otel_mlmon.cli import main

raise SystemExit(main())
