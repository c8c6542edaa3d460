package detector

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/go-sql-driver/mysql"

	"github.com/remora-ha/remora/core"
)

// AskOnce opens a connection to a server, asks it whether it is read-only, and closes the connection: proof that it answers
// queries, which an accepted TCP connection is not. It ends with ctx, which needs a deadline.
func AskOnce(ctx context.Context, address, user, password string) (core.Tri, error) {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd, cfg.Net, cfg.Addr, cfg.Logger = user, password, "tcp", address, &mysql.NopLogger{}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return core.Unknown, fmt.Errorf("ask MySQL at %s: %w", address, err)
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	var readOnly bool
	err = db.QueryRowContext(ctx, "SELECT @@global.read_only").Scan(&readOnly)
	var answer *mysql.MySQLError
	switch {
	case errors.As(err, &answer):
		return core.Unknown, nil // a refused login is an answer: the server is alive
	case err != nil:
		return core.Unknown, fmt.Errorf("ask MySQL at %s: %w", address, err)
	}
	if readOnly {
		return core.Yes, nil
	}
	return core.No, nil
}
