package main

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"sync"
	"time"

	"github.com/canonical/go-dqlite/v3/driver"
)

const writers = 3

// work writes rows all the time and remembers what was acknowledged.
type work struct {
	db   *sql.DB
	stop chan struct{}
	done sync.WaitGroup

	lock         sync.Mutex
	acknowledged map[int64]string
	failures     map[string]int
}

func newWork(c *cluster) (*work, error) {
	d, err := driver.New(c.store, driver.WithDialFunc(c.dial), driver.WithAttemptTimeout(2*time.Second))
	if err != nil {
		return nil, err
	}
	sql.Register("dqlite-over-tls", d)
	db, err := sql.Open("dqlite-over-tls", "work")
	if err != nil {
		return nil, err
	}
	if _, err := db.Exec("CREATE TABLE rows (key INTEGER PRIMARY KEY, writer INT, value TEXT)"); err != nil {
		return nil, fmt.Errorf("create the table: %w", err)
	}
	w := &work{db: db, stop: make(chan struct{}), acknowledged: map[int64]string{}, failures: map[string]int{}}
	for writer := 0; writer < writers; writer++ {
		writer := writer
		w.done.Add(1)
		go w.write(writer)
	}
	return w, w.progress()
}

func (w *work) write(writer int) {
	defer w.done.Done()
	for count := 0; ; count++ {
		select {
		case <-w.stop:
			return
		case <-time.After(5 * time.Millisecond):
		}
		key, value := int64(count*writers+writer), fmt.Sprintf("value %d of %d", count, writer)
		err := w.insert(key, writer, value)
		w.lock.Lock()
		if err == nil {
			w.acknowledged[key] = value
		} else {
			w.failures[err.Error()]++
		}
		w.lock.Unlock()
	}
}

// insert writes one row in a transaction that reads first, as programs do.
func (w *work) insert(key int64, writer int, value string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	tx, err := w.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	var before int
	err = tx.QueryRowContext(ctx, "SELECT count(*) FROM rows WHERE key = ?", key).Scan(&before)
	if err == nil && before == 0 {
		_, err = tx.ExecContext(ctx, "INSERT INTO rows VALUES (?, ?, ?)", key, writer, value)
	}
	if err != nil {
		_ = tx.Rollback()
		return err
	}
	return tx.Commit()
}

func (w *work) count() int {
	w.lock.Lock()
	defer w.lock.Unlock()
	return len(w.acknowledged)
}

// progress waits until twenty more rows have been written.
func (w *work) progress() error {
	before := w.count()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if w.count() >= before+20 {
			return nil
		}
	}
	return fmt.Errorf("nobody writes any more")
}

// finish ends the writers and checks the rows.
func (w *work) finish() error {
	close(w.stop)
	w.done.Wait()
	log.Printf("%d rows acknowledged; failed: %v", w.count(), w.failures)
	return w.verify()
}

// verify expects every acknowledged row, and a database that takes one more.
func (w *work) verify() error {
	last := int64(1) << 40
	if err := w.insert(last, 0, "last"); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	rows, err := w.db.Query("SELECT key, value FROM rows")
	if err != nil {
		return err
	}
	defer rows.Close()
	found := map[int64]string{}
	for rows.Next() {
		var key int64
		var value string
		if err := rows.Scan(&key, &value); err != nil {
			return err
		}
		found[key] = value
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for key, value := range w.acknowledged {
		if found[key] != value {
			return fmt.Errorf("row %d is %q, acknowledged was %q", key, found[key], value)
		}
	}
	var sound string
	if err := w.db.QueryRow("PRAGMA integrity_check").Scan(&sound); err != nil || sound != "ok" {
		return fmt.Errorf("integrity_check: %q, %v", sound, err)
	}
	log.Printf("%d rows, every acknowledged one among them", len(found))
	return nil
}
