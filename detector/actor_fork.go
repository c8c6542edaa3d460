package detector

import (
	"context"
	"crypto/tls"
	"database/sql"
	"fmt"
	"strings"

	"github.com/go-sql-driver/mysql"

	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/gtid"
)

// askBinlogState asks MariaDB for the last transaction of each server in its binary log.
const askBinlogState = "SELECT @@global.gtid_binlog_state AS state"

// forked names what a MariaDB has written to its binary log and its source has not, as far as positions do not show it. A
// position is one number for a domain: a source that has written more since has a higher one, whatever it lacks. Outside
// of its strict mode MariaDB begins at the next number then, and the two differ without anybody's notice. The state of the
// binary log has a number for each server that has written.
func (l *line) forked(ctx context.Context, f core.FollowServer) (string, error) {
	r, err := l.one(ctx, askBinlogState)
	if err != nil {
		return "", err
	}
	ours, err := gtid.ParseState(r["state"])
	if err != nil || len(ours) == 0 {
		return "", err
	}
	text, err := l.as.askSource(ctx, f.Source.String(), askBinlogState)
	if err != nil {
		return "", err
	}
	theirs, err := gtid.ParseState(text)
	if err != nil {
		return "", err
	}
	return strings.Join(ours.Lacking(theirs), ","), nil
}

// askSource asks another server for what any account may read, with the account that servers replicate with.
func (as *Account) askSource(ctx context.Context, address, question string) (answer string, err error) {
	password := ""
	if as.ReplicationPassword != nil {
		if password, err = as.ReplicationPassword(); err != nil {
			return "", err
		}
	}
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd, cfg.Net, cfg.Addr, cfg.Logger = as.ReplicationUser, password, "tcp", address, &mysql.NopLogger{}
	cfg.Timeout, cfg.ReadTimeout, cfg.WriteTimeout = statementWait, statementWait, statementWait
	if as.ReplicationTLS.Enabled {
		// The authority's file is the server's to read. What is asked is no secret, and the password does not travel.
		cfg.TLS = &tls.Config{InsecureSkipVerify: true}
	}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return "", err
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	if err := db.QueryRowContext(ctx, question).Scan(&answer); err != nil {
		return "", fmt.Errorf("ask the source at %s what it has in its binary log, as %s: %w", address, as.ReplicationUser, hide(err, password))
	}
	return answer, nil
}
