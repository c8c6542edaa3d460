package detector

import (
	"context"
	"fmt"
	"time"
)

// mostTransactions bounds the list for people.
const mostTransactions = 5

// Transactions lists the clients' transactions that have been open for longer than a time, in words, the oldest first.
func (a *Actor) Transactions(ctx context.Context, older time.Duration) ([]string, error) {
	var out []string
	err := a.with(ctx, a.work, func(l *line) error {
		rows, err := l.query(ctx, statementWait, askOldTransactions(l.as.User, older))
		for _, r := range rows {
			out = append(out, fmt.Sprintf("session %s of %s has had one for %s s", r["id"], r["user"], r["age"]))
		}
		pause(ctx, trxPoll) // a Demote that comes next gets a new list, and does not wait for those of this one
		return err
	})
	return out, err
}

// askOldTransactions lists transactions by their age. The server's clock counts in whole seconds there.
func askOldTransactions(own string, older time.Duration) string {
	return fmt.Sprintf("SELECT p.ID AS id, p.USER AS user, TIMESTAMPDIFF(SECOND, t.trx_started, NOW()) AS age "+
		"FROM information_schema.INNODB_TRX t JOIN information_schema.PROCESSLIST p ON p.ID = t.trx_mysql_thread_id WHERE %s "+
		"AND TIMESTAMPDIFF(SECOND, t.trx_started, NOW()) > %d ORDER BY t.trx_started LIMIT %d", clients(own), int(older.Seconds()), mostTransactions)
}
