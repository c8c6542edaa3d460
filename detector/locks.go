package detector

import (
	"errors"
	"fmt"

	"github.com/go-sql-driver/mysql"

	"github.com/remora-ha/remora/core"
)

// MHA's advisory locks. A manager holds the first on the primary that it watches. Who fails over or switches holds the
// second on each living replica, from before the first hook on.
const (
	mhaMonitorLock  = "MHA_Master_High_Availability_Monitor"
	mhaFailoverLock = "MHA_Master_High_Availability_Failover"
)

// lockColumns ask which session holds each of the locks. NULL is none.
var lockColumns = fmt.Sprintf("IS_USED_LOCK('%s') AS mha_watches, IS_USED_LOCK('%s') AS mha_acts", mhaMonitorLock, mhaFailoverLock)

// findLocks asks once for each connection whether the server tells who holds a lock. One that refuses is not asked again: a
// probe must not fail for that.
func (x *session) findLocks() error {
	_, err := x.query("SELECT " + lockColumns)
	var answer *mysql.MySQLError
	if err != nil && !errors.As(err, &answer) {
		return err
	}
	x.dialect.locks = err == nil
	return nil
}

// heldLocks reads whether MHA's locks are held.
func (d dialect) heldLocks(r row) (watches, acts core.Tri) {
	if !d.locks {
		return core.Unknown, core.Unknown
	}
	held := func(column string) core.Tri {
		if _, ok := r[column]; ok {
			return core.Yes
		}
		return core.No
	}
	return held("mha_watches"), held("mha_acts")
}
