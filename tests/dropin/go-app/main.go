// A program as its users write them: servers with TLS, roles given out by go-dqlite, database/sql. It starts itself
// as four processes, loses some of them in every way, and checks at the end that no acknowledged row is missing.
//
//	go-app DIR PORT          the scenario, in an empty directory, with the ports PORT to PORT+3
//	go-app roles DIR PORT    that of the roles, with seven servers and the ports PORT to PORT+6 (roles.go)
//	go-app node DIR NUMBER PORT STANDBYS   one server of them, until SIGTERM
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	dqlite "github.com/canonical/go-dqlite/v3"
	"github.com/canonical/go-dqlite/v3/app"
	"github.com/canonical/go-dqlite/v3/client"
)

const (
	lossServers = 4
	voters      = 3
	// How long anything may take that the cluster does by itself.
	patience = 40 * time.Second
)

func main() {
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	var err error
	switch {
	case len(os.Args) == 6 && os.Args[1] == "node":
		err = serve(os.Args[2], number(os.Args[3]), number(os.Args[4]), number(os.Args[5]))
	case len(os.Args) == 4 && os.Args[1] == "roles":
		err = scenario(os.Args[2], number(os.Args[3]), roleServers, rolesSteps)
	case len(os.Args) == 3:
		err = scenario(os.Args[1], number(os.Args[2]), lossServers, lossSteps)
	default:
		err = fmt.Errorf("usage: go-app [roles] DIR PORT")
	}
	if err != nil {
		log.Fatal("FAILED: ", err)
	}
}

func number(text string) int {
	value, err := strconv.Atoi(text)
	if err != nil {
		log.Fatal(err)
	}
	return value
}

// address of the server with this number, counted from 1.
func address(port, server int) string {
	return fmt.Sprintf("127.0.0.1:%d", port+server-1)
}

func directory(dir string, server int) string {
	return filepath.Join(dir, strconv.Itoa(server))
}

func serve(dir string, server, port, standBys int) error {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	cert, pool, err := loadCertificate(dir)
	if err != nil {
		return err
	}
	var join []string
	if server > 1 {
		join = []string{address(port, 1)}
	}
	node, err := app.New(directory(dir, server),
		app.WithAddress(address(port, server)), app.WithCluster(join), app.WithTLS(app.SimpleTLSConfig(cert, pool)),
		app.WithVoters(voters), app.WithStandBys(standBys), app.WithFailureDomain(uint64(server)),
		app.WithRolesAdjustmentFrequency(500*time.Millisecond), app.WithNetworkLatency(50*time.Millisecond),
		app.WithSnapshotParams(dqlite.SnapshotParams{Threshold: 64, Trailing: 128}),
		app.WithLogFunc(func(level client.LogLevel, format string, a ...interface{}) {
			log.Printf(level.String()+": "+format, a...)
		}))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := node.Ready(ctx); err != nil {
		return fmt.Errorf("not ready: %w", err)
	}
	log.Print("ready")
	<-term
	ctx, cancel = context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := node.Handover(ctx); err != nil {
		// The leader may have promoted the last candidate by itself a moment ago: go-dqlite takes the refusal of its own
		// promotion for a failure. Whether the cluster has its roles is looked at afterwards.
		if !strings.Contains(err.Error(), "could not promote any online node") {
			return fmt.Errorf("handover: %w", err)
		}
		log.Printf("handover: %v", err)
	}
	return node.Close()
}

type step func(*cluster, *work) error

var lossSteps = []step{loseLeader, stopLeader, stopFollower, finish, recoverHalf}

// scenario starts servers one by one, and takes the steps while rows are written.
func scenario(dir string, port, servers int, steps []step) error {
	// A child dies with the thread that started it, which therefore has to live as long as this process.
	runtime.LockOSThread()
	if err := makeCertificate(dir); err != nil {
		return err
	}
	c, err := newCluster(dir, port, servers)
	if err != nil {
		return err
	}
	defer c.killAll()
	log.Printf("%d servers", servers)
	for server := 1; server <= servers; server++ {
		if err := c.start(server); err != nil {
			return err
		}
		if err := c.waitForMembers(server); err != nil {
			return err
		}
	}
	w, err := newWork(c)
	if err != nil {
		return err
	}
	for _, step := range steps {
		if err := step(c, w); err != nil {
			return err
		}
	}
	return nil
}

func finish(_ *cluster, w *work) error {
	return w.finish()
}

// loseLeader kills the leader: the stand-by takes its place, and it comes back as a stand-by.
func loseLeader(c *cluster, w *work) error {
	lost, err := c.leader()
	if err != nil {
		return err
	}
	log.Printf("losing the leader, server %d", lost)
	c.kill(lost)
	if err := c.waitForRoles(voters, lost); err != nil {
		return err
	}
	if err := w.progress(); err != nil {
		return err
	}
	if err := c.start(lost); err != nil {
		return err
	}
	return c.waitForRoles(voters, 0)
}

// stopLeader ends the leader in good order: another one leads before it has gone.
func stopLeader(c *cluster, w *work) error {
	old, err := c.leader()
	if err != nil {
		return err
	}
	log.Printf("stopping the leader, server %d", old)
	if err := c.stop(old); err != nil {
		return err
	}
	leader, err := c.leader()
	if err != nil {
		return err
	}
	if leader == old {
		return fmt.Errorf("server %d handed over, ended, and leads", old)
	}
	if err := c.waitForRoles(voters, old); err != nil {
		return err
	}
	if err := w.progress(); err != nil {
		return err
	}
	if err := c.start(old); err != nil {
		return err
	}
	return c.waitForRoles(voters, 0)
}

// stopFollower does the same to another voter.
func stopFollower(c *cluster, w *work) error {
	leader, err := c.leader()
	if err != nil {
		return err
	}
	follower, err := c.other(leader, client.Voter)
	if err != nil {
		return err
	}
	log.Printf("stopping a follower, server %d", follower)
	if err := c.stop(follower); err != nil {
		return err
	}
	if err := c.waitForRoles(voters, follower); err != nil {
		return err
	}
	if err := w.progress(); err != nil {
		return err
	}
	if err := c.start(follower); err != nil {
		return err
	}
	return c.waitForRoles(voters, 0)
}

// recoverHalf has two of the four servers left, after a power cut: no majority of the voters, or no stand-by.
func recoverHalf(c *cluster, w *work) error {
	log.Print("recovering two servers of four")
	members, err := c.members()
	if err != nil {
		return err
	}
	c.killAll()
	// The rows are on every voter or will be: the first two voters of which one has the newest entry.
	var left []client.NodeInfo
	for _, member := range members {
		if member.Role == client.Voter && len(left) < 2 {
			left = append(left, member)
		}
	}
	template, newest := 0, dqlite.LastEntryInfo{}
	for i, member := range left {
		info, err := dqlite.ReadLastEntryInfo(directory(c.dir, c.number(member)))
		if err != nil {
			return err
		}
		if newest.Before(info) {
			template, newest = i, info
		}
	}
	source, target := c.number(left[template]), c.number(left[1-template])
	left[1-template].Role = client.StandBy
	if err := dqlite.ReconfigureMembershipExt(directory(c.dir, source), left); err != nil {
		return err
	}
	if err := c.copyData(source, target); err != nil {
		return err
	}
	for _, server := range []int{source, target} {
		if err := c.start(server); err != nil {
			return err
		}
	}
	if err := c.waitForMembers(2); err != nil {
		return err
	}
	return w.verify()
}
