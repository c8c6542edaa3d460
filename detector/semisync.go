package detector

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/remora-ha/remora/core"
)

// semiSyncWords returns the server's words for a source and a replica in the names of semi-synchronous replication, empty if
// it has none. MySQL's plugin decides by its name, MariaDB has it built in.
func (d dialect) semiSyncWords() (source, replica string) {
	switch {
	case d.has("rpl_semi_sync_source_enabled"):
		return "source", "replica"
	case d.has("rpl_semi_sync_master_enabled"):
		return "master", "slave"
	}
	return "", ""
}

// askSemiSync asks how it is set up. A MariaDB waits for one replica and has no variable for it.
func (d dialect) askSemiSync() string {
	source, replica := d.semiSyncWords()
	v := "@@global.rpl_semi_sync_" + source
	acks := "1"
	if !d.mariadb {
		acks = fmt.Sprintf("%s_wait_for_%s_count", v, replica)
	}
	return fmt.Sprintf("SELECT %[1]s_enabled AS enabled, %[1]s_wait_point AS wait_point, %[1]s_wait_no_%[2]s AS alone, "+
		"%[1]s_timeout AS timeout, %[3]s AS acks", v, replica, acks)
}

// askSemiSyncState asks whether commits wait at present, and for how many replicas.
func (d dialect) askSemiSyncState() string {
	source, _ := d.semiSyncWords()
	return fmt.Sprintf("SHOW GLOBAL STATUS WHERE Variable_name IN ('Rpl_semi_sync_%[1]s_status', 'Rpl_semi_sync_%[1]s_clients')", source)
}

// semiSync reads how commits wait for replicas. What can not be told, because the plugin has just been removed or the answer
// is late, is the zero value: the server has answered the probe already.
func (x *session) semiSync() (core.SemiSync, error) {
	if source, _ := x.dialect.semiSyncWords(); source == "" {
		return core.SemiSync{}, nil
	}
	set, err := x.query(x.dialect.askSemiSync())
	if err != nil || len(set) != 1 || set[0]["enabled"] != "1" {
		return core.SemiSync{}, x.untold(err)
	}
	state, err := x.query(x.dialect.askSemiSyncState())
	if err != nil {
		return core.SemiSync{}, x.untold(err)
	}
	return parseSemiSync(set[0], state), nil
}

// untold returns an error that ends the connection, and nil for others.
func (x *session) untold(err error) error {
	var answer *mysql.MySQLError
	switch {
	case errors.As(err, &answer):
		return nil
	case errors.Is(x.link.failure(), os.ErrDeadlineExceeded):
		x.spoiled = true
		return nil
	}
	return err
}

func parseSemiSync(set row, state []row) core.SemiSync {
	number := func(s string, bits int) uint64 {
		n, err := strconv.ParseUint(s, 10, bits)
		if err != nil {
			return 0
		}
		return n
	}
	s := core.SemiSync{AfterSync: set["wait_point"] == "AFTER_SYNC", Alone: set["alone"] == "1", Acks: uint32(number(set["acks"], 32)),
		Timeout: time.Duration(number(set["timeout"], 32)) * time.Millisecond}
	for _, r := range state {
		switch name := strings.ToLower(r["variable_name"]); {
		case strings.HasSuffix(name, "_status"):
			s.Waits = r["value"] == "ON"
		case strings.HasSuffix(name, "_clients"):
			s.Replicas = uint32(number(r["value"], 32))
		}
	}
	return s
}
