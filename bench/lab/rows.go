package lab

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// sourceOf returns the address of a server's source while both replication threads run. query is what lists them, in the
// words of the server, io, applier and host the columns with their states and the source's address.
func sourceOf(ctx context.Context, db *sql.DB, query, io, applier, host string) (string, error) {
	row, err := queryRow(ctx, db, query)
	if err != nil {
		return "", err
	}
	if row[io] == "Yes" && row[applier] == "Yes" {
		return row[host], nil
	}
	return "", fmt.Errorf("replication: receiver %s, applier %s: %s%s", row[io], row[applier], row["Last_IO_Error"], row["Last_SQL_Error"])
}

// queryRow returns the only row of a query by column name.
func queryRow(ctx context.Context, db *sql.DB, query string) (map[string]string, error) {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", query, err)
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil || !rows.Next() {
		return nil, fmt.Errorf("%s: no row: %w", query, errors.Join(err, rows.Err(), sql.ErrNoRows))
	}
	values := make([]sql.NullString, len(names))
	targets := make([]any, len(names))
	for i := range values {
		targets[i] = &values[i]
	}
	if err := rows.Scan(targets...); err != nil {
		return nil, fmt.Errorf("%s: %w", query, err)
	}
	row := map[string]string{}
	for i, n := range names {
		row[n] = values[i].String
	}
	return row, nil
}
