package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/canonical/go-dqlite/v3/app"
	"github.com/canonical/go-dqlite/v3/client"
)

// cluster has the processes, and asks the servers from outside.
type cluster struct {
	dir     string
	port    int
	servers int
	nodes   map[int]*exec.Cmd
	store   *client.InmemNodeStore
	dial    client.DialFunc
}

func newCluster(dir string, port, servers int) (*cluster, error) {
	cert, pool, err := loadCertificate(dir)
	if err != nil {
		return nil, err
	}
	var all []client.NodeInfo
	for server := 1; server <= servers; server++ {
		all = append(all, client.NodeInfo{Address: address(port, server)})
		if err := os.Mkdir(directory(dir, server), 0o755); err != nil {
			return nil, err
		}
	}
	store := client.NewInmemNodeStore()
	if err := store.Set(context.Background(), all); err != nil {
		return nil, err
	}
	dial := client.DialFuncWithTLS(client.DefaultDialFunc, app.SimpleDialTLSConfig(cert, pool))
	return &cluster{dir, port, servers, map[int]*exec.Cmd{}, store, dial}, nil
}

func (c *cluster) start(server int) error {
	output, err := os.OpenFile(filepath.Join(c.dir, fmt.Sprintf("server-%d.log", server)),
		os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer output.Close()
	node := exec.Command(os.Args[0], "node", c.dir, strconv.Itoa(server), strconv.Itoa(c.port),
		strconv.Itoa(c.standBys()))
	node.Stdout, node.Stderr = output, output
	node.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := node.Start(); err != nil {
		return err
	}
	c.nodes[server] = node
	return nil
}

// standBys is how many go-dqlite shall have, of which it wants three by itself.
func (c *cluster) standBys() int {
	if c.servers > voters+3 {
		return 3
	}
	return c.servers - voters
}

func (c *cluster) kill(server int) {
	// The error is that it was killed.
	_ = c.nodes[server].Process.Kill()
	_ = c.nodes[server].Wait()
	delete(c.nodes, server)
}

func (c *cluster) killAll() {
	for server := range c.nodes {
		c.kill(server)
	}
}

// stop sends SIGTERM and expects a clean end.
func (c *cluster) stop(server int) error {
	node := c.nodes[server]
	if err := node.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- node.Wait() }()
	select {
	case err := <-ended:
		delete(c.nodes, server)
		if err != nil {
			return fmt.Errorf("server %d after SIGTERM: %w", server, err)
		}
		return nil
	case <-time.After(patience):
		return fmt.Errorf("server %d still runs after SIGTERM", server)
	}
}

func (c *cluster) number(member client.NodeInfo) int {
	for server := 1; server <= c.servers; server++ {
		if member.Address == address(c.port, server) {
			return server
		}
	}
	return 0
}

// ask runs requests on a connection to the leader, for as long as it takes to find one.
func (c *cluster) ask(body func(context.Context, *client.Client) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cli, err := client.FindLeader(ctx, c.store, client.WithDialFunc(c.dial))
	if err != nil {
		return fmt.Errorf("find leader: %w", err)
	}
	defer cli.Close()
	return body(ctx, cli)
}

func (c *cluster) members() (members []client.NodeInfo, err error) {
	err = c.ask(func(ctx context.Context, cli *client.Client) (err error) {
		members, err = cli.Cluster(ctx)
		return err
	})
	return members, err
}

func (c *cluster) leader() (server int, err error) {
	err = c.ask(func(ctx context.Context, cli *client.Client) error {
		info, err := cli.Leader(ctx)
		if err == nil && info != nil {
			server = c.number(*info)
		}
		return err
	})
	if err == nil && server == 0 {
		err = fmt.Errorf("the leader does not know that it leads")
	}
	return server, err
}

// other is a server with this role, and not the one named.
func (c *cluster) other(than int, role client.NodeRole) (int, error) {
	members, err := c.members()
	if err != nil {
		return 0, err
	}
	for _, member := range members {
		if server := c.number(member); server != than && member.Role == role {
			return server, nil
		}
	}
	return 0, fmt.Errorf("nobody but server %d is a %s: %v", than, role, members)
}

// waitForMembers expects that many servers, all of them there.
func (c *cluster) waitForMembers(count int) error {
	return c.wait(func(members []client.NodeInfo) bool { return len(members) == count && c.settled(members, 0) })
}

// waitForRoles expects all servers, with that many voters besides the one that is not there.
func (c *cluster) waitForRoles(count, absent int) error {
	return c.wait(func(members []client.NodeInfo) bool {
		return len(members) == c.servers && c.settled(members, absentID(c, members, absent))
	})
}

func absentID(c *cluster, members []client.NodeInfo, absent int) uint64 {
	for _, member := range members {
		if c.number(member) == absent {
			return member.ID
		}
	}
	return 0
}

// settled tells whether go-dqlite has nothing to change: a sole voter while there are fewer than three servers, else as
// many voters as it wants and as many of the others stand by as it wants, none of them absent.
func (c *cluster) settled(members []client.NodeInfo, absent uint64) bool {
	present, voting, standing := 0, 0, 0
	for _, member := range members {
		switch {
		case member.ID == absent:
			if member.Role == client.Voter {
				return false
			}
			continue
		case member.Role == client.Voter:
			voting++
		case member.Role == client.StandBy:
			standing++
		}
		present++
	}
	if present < voters {
		return voting == 1
	}
	wanted := present - voters
	if wanted > c.standBys() {
		wanted = c.standBys()
	}
	return voting == voters && standing == wanted
}

func (c *cluster) wait(good func([]client.NodeInfo) bool) error {
	var members []client.NodeInfo
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		members, err = c.members()
		if err == nil && good(members) {
			return nil
		}
	}
	return fmt.Errorf("the roles are not as they should be: %v, %v", members, err)
}

// copyData replaces the data of one server by those of another; what go-dqlite keeps about the server itself stays.
func (c *cluster) copyData(source, target int) error {
	from, to := directory(c.dir, source), directory(c.dir, target)
	return exec.Command("sh", "-c",
		`cp "$2/info.yaml" "$2.info" && rm -r "$2" && cp -r "$1" "$2" && mv "$2.info" "$2/info.yaml"`,
		"sh", from, to).Run()
}
