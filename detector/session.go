package detector

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

// session is a connection that has logged in.
type session struct {
	conn     driver.Conn
	link     *link
	dialect  dialect
	statusAt time.Time
	began    time.Time
	spoiled  bool // an answer is still under way that nobody will read
	denied   bool // the replica status was refused; MySQL gives a new privilege to new connections only
}

// recognise finds the dialect.
func (x *session) recognise() error {
	d, err := recognise(x.query)
	if err == nil {
		x.dialect = d
	}
	return err
}

// recognise finds the dialect of the server that ask asks.
func recognise(ask func(statement string) ([]row, error)) (dialect, error) {
	_, err := ask(askMariaDB)
	var answer *mysql.MySQLError
	if err != nil && !(errors.As(err, &answer) && answer.Number == errUnknownVariable) {
		return dialect{}, err
	}
	d := dialect{mariadb: err == nil, vars: map[string]string{}}
	rows, err := ask(askVariables)
	if err != nil {
		return dialect{}, err
	}
	for _, r := range rows {
		if v, ok := r["value"]; ok {
			d.vars[strings.ToLower(r["variable_name"])] = v
		}
	}
	d.version = parseVersion(d.vars["version"])
	return d, nil
}

// query runs a statement in one round trip and reads the whole result. The deadline is that of the link: a context would
// wake another goroutine with every probe.
func (x *session) query(statement string) ([]row, error) { return queryRows(x.conn, statement) }

func queryRows(conn driver.Conn, statement string) ([]row, error) {
	rs, err := conn.(driver.QueryerContext).QueryContext(context.Background(), statement, nil)
	if err != nil {
		return nil, err
	}
	defer rs.Close()
	names := rs.Columns()
	for i := range names {
		names[i] = replicaName(names[i])
	}
	var rows []row
	values := make([]driver.Value, len(names))
	for {
		switch err := rs.Next(values); {
		case errors.Is(err, io.EOF):
			return rows, nil
		case err != nil:
			return nil, err
		}
		r := make(row, len(names))
		for i, v := range values {
			if v != nil {
				r[names[i]] = text(v)
			}
		}
		rows = append(rows, r)
	}
}

// text returns a value of the text protocol as the server wrote it.
func text(v driver.Value) string {
	switch v := v.(type) {
	case []byte:
		return string(v)
	case string:
		return v
	case int64:
		return strconv.FormatInt(v, 10)
	}
	return fmt.Sprint(v)
}
