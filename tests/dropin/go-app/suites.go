//go:build suites

// Never compiled: it keeps in go.mod the other version whose own tests are run.
package main

import _ "github.com/canonical/go-dqlite/v2/client"
