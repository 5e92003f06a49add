package main

import (
	"fmt"
	"log"

	"github.com/canonical/go-dqlite/v3/client"
)

// Three voters, three stand-bys and a spare: whoever goes has somebody to take its place.
const roleServers = 7

var rolesSteps = []step{stopEach, killVoter, stopTwo, killTwo, finish}

// stopEach ends the leader, another voter and a stand-by in good order, one after the other: each is the spare afterwards.
func stopEach(c *cluster, w *work) error {
	leader, err := c.leader()
	if err != nil {
		return err
	}
	if err := c.replace(w, leader, "stopping the leader", c.stop); err != nil {
		return err
	}
	for _, role := range []client.NodeRole{client.Voter, client.StandBy} {
		leader, err := c.leader()
		if err != nil {
			return err
		}
		server, err := c.other(leader, role)
		if err != nil {
			return err
		}
		if err := c.replace(w, server, "stopping a "+role.String(), c.stop); err != nil {
			return err
		}
	}
	return nil
}

// killVoter has the leader find out by itself that somebody else has to vote.
func killVoter(c *cluster, w *work) error {
	leader, err := c.leader()
	if err != nil {
		return err
	}
	server, err := c.other(leader, client.Voter)
	if err != nil {
		return err
	}
	return c.replace(w, server, "killing a voter", c.killed)
}

// stopTwo ends the leader and a stand-by in good order, and then the cluster has one spare again.
func stopTwo(c *cluster, w *work) error {
	leader, err := c.leader()
	if err != nil {
		return err
	}
	other, err := c.other(leader, client.StandBy)
	if err != nil {
		return err
	}
	log.Printf("stopping two, servers %d and %d", leader, other)
	for _, server := range []int{leader, other} {
		if err := c.stop(server); err != nil {
			return err
		}
	}
	if err := w.progress(); err != nil {
		return err
	}
	return c.bringBack(w, leader, other)
}

// killTwo takes two of three voters: nobody can write or change a role until one of them is back.
func killTwo(c *cluster, w *work) error {
	leader, err := c.leader()
	if err != nil {
		return err
	}
	other, err := c.other(leader, client.Voter)
	if err != nil {
		return err
	}
	log.Printf("killing two voters, servers %d and %d", leader, other)
	c.kill(leader)
	c.kill(other)
	return c.bringBack(w, leader, other)
}

func (c *cluster) killed(server int) error {
	c.kill(server)
	return nil
}

// replace ends a server, which has to become the spare, and starts it again.
func (c *cluster) replace(w *work, server int, what string, end func(int) error) error {
	log.Printf("%s, server %d", what, server)
	if err := end(server); err != nil {
		return err
	}
	isSpare := func(members []client.NodeInfo) bool {
		for _, member := range members {
			if c.number(member) == server && member.Role != client.Spare {
				return false
			}
		}
		return c.settled(members, absentID(c, members, server))
	}
	if err := c.wait(isSpare); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if err := w.progress(); err != nil {
		return err
	}
	return c.bringBack(w, server)
}

// bringBack starts servers, and expects the roles of a cluster that has all of its servers.
func (c *cluster) bringBack(w *work, servers ...int) error {
	for _, server := range servers {
		if err := c.start(server); err != nil {
			return err
		}
	}
	if err := c.waitForRoles(voters, 0); err != nil {
		return err
	}
	return w.progress()
}
