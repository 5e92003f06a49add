# Read by go.sh and go_modules.sh: Go as it is installed, with nothing from the surroundings but its caches.
export GOTOOLCHAIN=local GOWORK=off GOFLAGS=-buildvcs=false
